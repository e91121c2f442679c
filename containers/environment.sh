# shellcheck shell=sh
# Variables for every program in the image. They override the host's variables (and `apptainer exec --env NAME=VALUE`
# overrides both). install.sh gives this file to Apptainer.
export PATH="/opt/hpc-train/bin:$PATH"
# Packages of the host, from its modules or in ~/.local, would come before those of the image.
export PYTHONPATH='' PYTHONHOME=''
export PYTHONNOUSERSITE=1
# If an ordinary user starts each rank in its own container, the ranks may not read each other's memory, and large
# messages would fail. With these settings they go through shared memory.
export MPIR_CVAR_CH4_CMA_ENABLE=0 OMPI_MCA_smsc=^cma
# The mpirun in the image is for one node. In a job it would call srun, which is not in the image.
export HYDRA_LAUNCHER=fork PRTE_MCA_ras=^slurm PRTE_MCA_plm=^slurm
# Open MPI's mpirun refuses root, but root may build the image and run its test.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
