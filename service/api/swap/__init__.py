"""Another model in the place of the one that answers, in every process of a service, without a request noticing.

    line.py      messages between processes, with an open file where there is one
    sealed.py    a verified bundle in memory that all processes read and none can write
    hub.py       one for a service: who is to load what, and when all change over
    switch.py    one for a process: loads, changes over, and asks the hub
    aside.py     loading that the event loop hardly notices
    fitting.py   which model may take the place of which
    trial.py     whether the new one is worse than the one before, and has to go
    shadow.py    a model that scores what another answers

Knows processes, bundles and scorers. Does not know HTTP.
"""
