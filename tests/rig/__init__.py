"""Stock Linux on hardware KVM: a machine that has it, and what is tried inside."""
