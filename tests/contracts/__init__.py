"""What every implementation of a port must do: one suite for each port, run on fakes and real parts."""
