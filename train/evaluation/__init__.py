"""How good a model is: what is looked at, scored, counted, told and drawn."""
