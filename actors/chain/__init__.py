"""The audit chain: what recovery decided and did, and what people did to it, each row sealed to the one before."""
