"""Pure data: what is asked for (policies, profiles, values) and what the host is (facts)."""
