"""What a model is worth: log-likelihoods, figures made of them, and gates on the figures."""
