"""The colours of all pictures."""

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#0072B2', '#D55E00', '#CC79A7', '#000000')
