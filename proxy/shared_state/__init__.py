"""Redis, seen from the data plane: what workers and machines share.

`keys.py` spells every name once. `client.py` makes a client from a URL and says whether the server will do.
`breaker.py` puts a deadline and a circuit breaker round each call, so that a Redis that is gone costs a request
nothing. `embedded.py` runs the private server of a machine that was given none.

Nothing here retries: a command whose connection broke may have been carried out, and only its caller knows whether it
may be sent again.
"""
