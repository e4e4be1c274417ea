"""Made-up problems in the formats of GSM8K, MATH and MBPP, for the tiny models."""
