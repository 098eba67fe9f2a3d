"""From footage that carries GPS to training samples: what is kept, and which split it is of."""
