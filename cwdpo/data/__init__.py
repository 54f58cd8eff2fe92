"""Data: file formats to records, records to samples, samples to batches."""
