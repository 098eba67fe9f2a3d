"""Where training clips come from: real datasets, manifests, shards and the rendered world."""
