"""Text from a model: key/value cache, sampling, streaming. Below training, which draws its samples here."""
