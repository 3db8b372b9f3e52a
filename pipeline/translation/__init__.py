"""A model at work, by torch or by a faster engine.

In: a model folder, and sentences.
Out: their translations; the model in another engine's form.

    prefix       what a translation has to begin with, as a constraint on its tokens
    translate    sentences → sentences, with a model folder
    exports      a model folder's exports for faster engines, sealed by checksums
    conversion   the Transformer in CTranslate2's form
    marian       the Transformer as Hugging Face's MarianMT
    fast_engine  CTranslate2: the same search, several times as fast
    engines      what runs a model: torch, or CTranslate2
    workplace    where a driver's models translate: here, or on a node of the cluster
"""
