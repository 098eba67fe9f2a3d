"""Models made from an image-and-text network and a list of places, without training."""
