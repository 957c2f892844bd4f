"""Where and how often functions run; knows nothing of scores or models. Imports nothing, so that Ray stays optional."""
