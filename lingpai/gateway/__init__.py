"""The data plane: what happens to a model call, one file per step, in this order.

    authenticate   who calls? the credential becomes a principal, from memory or (first use) from the database
    read           what is asked? the few fields that matter of the body
    route          which model, on which backend? may this principal call it?
    admit          do all limits agree? one request is taken from each, or from none
    relay          to the backend and back, unary or as a stream, changed as little as possible
    settle         the usage record goes to the journal; only then the last bytes go to the caller

`exchange.py` holds the story together, `gateway.py` the parts it needs, `endpoints.py` the addresses it answers,
`answer.py` how an answer looks. No step touches the database; a call creates no task unless a connection to its
backend must be opened first.
"""
