"""Language models over codes: token layout, building from scratch, growing a pretrained vocabulary."""
