"""The life of a tenant: made, bound, exported, restored, shredded."""
