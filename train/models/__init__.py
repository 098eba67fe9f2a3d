"""Networks and classification heads."""
