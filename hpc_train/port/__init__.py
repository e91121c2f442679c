"""What a Keras 2 or TensorFlow 1 script needs for Keras 3, and what a launch line of Open MPI needs for MPICH."""
