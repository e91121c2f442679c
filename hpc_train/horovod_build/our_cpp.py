"""C++ that we add to Horovod: the texts that `patches` puts into its source."""

# The first operation of all ranks in a cycle. After it all ranks are there, so later ones may spin.
AND_OF_ALL_RANKS = """\
// HPC_TRAIN_MPI_SLEEP: microseconds between two looks whether all ranks have come; 0 spins as MPI does.
static int AndOfAllRanks(std::vector<long long>& bits, int count, MPI_Comm comm) {
  static const char* told = std::getenv("HPC_TRAIN_MPI_SLEEP");
  static const std::chrono::microseconds pause(told != nullptr ? std::atol(told) : 0);
  if (pause.count() <= 0) {
    return MPI_Allreduce(MPI_IN_PLACE, bits.data(), count, MPI_LONG_LONG_INT, MPI_BAND, comm);
  }
  MPI_Request request;
  int code = MPI_Iallreduce(MPI_IN_PLACE, bits.data(), count, MPI_LONG_LONG_INT, MPI_BAND, comm, &request);
  for (int done = 0; code == MPI_SUCCESS;) {
    code = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done) {
      break;
    }
    std::this_thread::sleep_for(pause);
  }
  return code;
}
"""

NAMES_OF_TENSORS = """\
std::vector<std::string> TensorQueue::Names() const {
  std::lock_guard<std::mutex> guard(mutex_);
  std::vector<std::string> names;
  for (auto& entry : tensor_table_) {
    names.push_back(entry.first);
  }
  return names;
}

"""

INCLUDES = """\
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

"""

# The table's mutex may be held for as long as ranks wait for each other.
WAITING_TENSORS = """\
// Names of the tensors that wait for other ranks, each with a line end; the bytes written, or -1 if that is not known.
int horovod_hpc_train_waiting(char* text, int room) {
  auto& table = horovod_global.process_set_table;
  if (!horovod_global.initialization_done || !table.mutex.try_lock()) {
    return -1;
  }
  std::vector<std::string> names;
  for (auto id : table.Ids()) {
    auto of_set = table.Get(id).tensor_queue.Names();
    names.insert(names.end(), of_set.begin(), of_set.end());
  }
  table.mutex.unlock();
  int written = 0;
  for (auto& name : names) {
    if (written + static_cast<int>(name.size()) + 1 > room) {
      return -1;
    }
    std::copy(name.begin(), name.end(), text + written);
    written += static_cast<int>(name.size());
    text[written++] = '\\n';
  }
  return written;
}

// Sends this process SIGXCPU after so many seconds, unless it is called again before; 0 takes that back. It needs no
// lock of the interpreter. Seconds in which the process is stopped do not count.
void horovod_hpc_train_end_after(int seconds) {
  static std::atomic<int> left(0);
  static std::once_flag begun;
  left = seconds;
  std::call_once(begun, [] {
    std::thread([] {
      while (true) {
        std::this_thread::sleep_for(std::chrono::seconds(1));
        int now = left;
        if (now > 0 && left.compare_exchange_strong(now, now - 1) && now == 1) {
          kill(getpid(), SIGXCPU);
        }
      }
    }).detach();
  });
}

"""

# A step waits for others from its last tensor on, as it gives tensors while it computes; statistics of batch
# normalisation it waits for at once.
HEADER = "horovod/common/hpc_train_waited.h"

HEADER_TEXT = """\
// How long this rank has waited for others, and how Horovod's thread waits for this rank.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>

namespace horovod {
namespace common {

// Tells Horovod's thread that a tensor was given.
class Given {
 public:
  // Never destroyed, as Horovod's thread may outlive static objects.
  static Given& Here() {
    static Given* given = new Given;
    return *given;
  }

  void Add() {
    {
      std::lock_guard<std::mutex> guard(mutex_);
      ++count_;
    }
    changed_.notify_one();
  }

  long Count() {
    std::lock_guard<std::mutex> guard(mutex_);
    return count_;
  }

  // Until more than `seen` were given, or the time is over.
  void Wait(long seen, std::chrono::milliseconds longest) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, longest, [&] { return count_ != seen; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  long count_ = 0;
};

// From the last tensor that it gave until all that it had given came back.
class Waited {
 public:
  // Never destroyed, as Horovod's thread may outlive static objects.
  static Waited& Here() {
    static Waited* waited = new Waited;
    return *waited;
  }

  void Begin(const std::string& name) {
    std::lock_guard<std::mutex> guard(mutex_);
    if (Row* row = Of(name)) {
      if (row == &gradients_ && name == first_) {
        // The next of several steps between two calls.
        sum_ += last_;
        last_ = 0.0;
      } else if (row == &gradients_ && first_.empty()) {
        first_ = name;
      }
      ++row->pending;
      row->last = std::chrono::steady_clock::now();
    }
  }

  void End(const std::string& name) {
    std::lock_guard<std::mutex> guard(mutex_);
    Row* row = Of(name);
    if (row == nullptr || --row->pending > 0) {
      return;
    }
    row->pending = 0;
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - row->last).count();
    if (row == &at_once_) {
      sum_ += seconds;
    } else {
      last_ = seconds;
    }
  }

  // Seconds since the last call: those after each step's last tensor, and those for what a step waits for at once.
  double Take() {
    std::lock_guard<std::mutex> guard(mutex_);
    double seconds = sum_ + last_;
    sum_ = last_ = 0.0;
    first_.clear();
    return seconds;
  }

 private:
  struct Row {
    int pending = 0;
    std::chrono::steady_clock::time_point last;
  };

  Row* Of(const std::string& name) {
    if (name.find("hpc_train.watch") != std::string::npos) {
      return nullptr;
    }
    return name.find("hpc_train.batch_norm") != std::string::npos ? &at_once_ : &gradients_;
  }

  std::mutex mutex_;
  Row gradients_, at_once_;
  double sum_ = 0.0, last_ = 0.0;
  std::string first_;
};

} // namespace common
} // namespace horovod
"""

# Tensors are counted before the tables are looked at: one that comes in between ends the wait.
WAIT_FOR_TENSORS = """\
// Where cores are few (HPC_TRAIN_MPI_SLEEP), wait for a tensor while this rank has none: a thread that wakes in each
// cycle interrupts TensorFlow's. It joins the other ranks' cycles a hundred times a second even so. It does not wait
// where others would not sleep until it comes, for ranks that have a process set of their own, or where the timeline
// notes when each rank came.
static void WaitForTensors(HorovodGlobalState& state) {
  static const char* told = std::getenv("HPC_TRAIN_MPI_SLEEP");
  static const bool few_cores = told != nullptr && std::atol(told) > 0;
  bool sleep_for_each_other = !state.dynamic_process_sets && state.parameter_manager.CacheEnabled() &&
                              state.cache_capacity > 0 && state.process_set_table.Ids().size() == 1;
  if (!few_cores || !sleep_for_each_other || state.shut_down || state.parameter_manager.IsAutoTuning() ||
      state.timeline_controller.TimelineEnabled()) {
    return;
  }
  long seen = Given::Here().Count();
  if (!state.process_set_table.Get(0).tensor_queue.Names().empty()) {
    return;
  }
  Given::Here().Wait(seen, std::chrono::milliseconds(10));
}

"""

WAITED = """\
// Seconds for which this rank has waited for others since the last call, in all steps since then.
double horovod_hpc_train_waited() { return Waited::Here().Take(); }

"""
