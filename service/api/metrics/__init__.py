"""What an operator can see of the service: counts and durations of all workers, and how far traffic has drifted.

`families` says what there is, `cells` is the memory that the workers share, `recorder` writes, `drift` compares with
the bundle's reference statistics, `exposition` reads and words it for Prometheus.
"""
