"""Translations over HTTP.

In: a MODEL, which may be an alias that moves.
Out: an HTTP server, within bounds for each client.

    limits    what one client may ask of it, and how much may wait
    replica   one version of the model, and the requests that wait for it, together
    requests  requests: read within bounds, checked, or refused
    metrics   what it tells Prometheus
    versions  the version in use, and the change to the next
    answers   translations, attention, readiness
    app       the interface, its description, and the pages for people
    http      clients that are slow, many, or speak no HTTP
    serve     from MODEL to the last answer
"""
