"""Ray: a cluster to work on, jobs of stages, worker groups, and the mistakes that come back from them."""
