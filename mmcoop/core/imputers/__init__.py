"""Any model made to answer without a modality, and the batches it is given."""
