"""Elastic: any model of MMDetection or MMPretrain as a supernet."""
