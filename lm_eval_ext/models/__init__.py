"""What every wrapper shares: loading, what it returns, thoughts, and the shipped models."""
