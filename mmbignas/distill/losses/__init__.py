"""Losses between the outputs of student and teacher."""
