"""From a data provider's folder to arrays that train: readers, packed datasets, splits, batches."""
