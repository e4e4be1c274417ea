"""Where questions come from: published data sets, few-shot exemplars, made-up problems."""
