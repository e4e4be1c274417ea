"""Self-training in rounds: EpiCaR, and STaR as the same loop without the self-evaluation rows."""
