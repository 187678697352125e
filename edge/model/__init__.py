"""U2++ MoE in torch: the reference every graph is compared with, and the training losses."""
