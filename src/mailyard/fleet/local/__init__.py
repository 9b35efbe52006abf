"""A stage of growth on one machine: the services beside our roles, started, kept and ended.

`stages.toml` says which services a stage has and which settings go with it. A service is a module
in `services/`: how it is started, when it is ready, which settings it gives the roles. `yard` puts
those of one stage together.
"""
