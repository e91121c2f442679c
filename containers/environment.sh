# shellcheck shell=sh
# What every program in the image finds set, whatever the host says (`apptainer exec --env NAME=VALUE` says otherwise).
# install.sh hands it to Apptainer.
export PATH="/opt/hpc-train/bin:$PATH"
# Packages of the host, of its modules or in ~/.local, would come before those of the image.
export PYTHONPATH='' PYTHONHOME=''
export PYTHONNOUSERSITE=1
# Ranks in containers of their own, started by an ordinary user, may not read each other's memory: large messages
# would fail. They go through shared memory instead.
export MPIR_CVAR_CH4_CMA_ENABLE=0 OMPI_MCA_smsc=^cma
# The mpirun inside is for one node: in a job it would call srun, which is outside.
export HYDRA_LAUNCHER=fork PRTE_MCA_ras=^slurm PRTE_MCA_plm=^slurm
# Open MPI's mpirun refuses root, who builds the image and runs its test.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
