"""A model as a version of MLflow's registry.

In: a model folder, its scores, and what it was made from.
Out: a version with its card, which loads where Heliograph is not installed; a version as a folder.

    pyfunc      what MLflow runs of a registered model: code and data, no pickle
    provenance  what a model was made from, kept with its version
    markdown    text from elsewhere in a page: it stays text
    model_card  what a version is, for whoever finds it
    downloads   artifacts out of MLflow's store
    versions    a model folder as a version of a registered model
    contender   a version, as the gate sees it
    registry    models in and out, and who is challenger
"""
