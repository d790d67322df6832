"""Short programs that use hyperagent_jax in code of one's own."""
