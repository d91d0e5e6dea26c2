// A team of threads that shares out tasks, and the progress of a call, which Ctrl-C can interrupt.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace native {

// kRefused: an input is not finite, or outside its range.
enum Status : int { kDone = 0, kOutOfMemory = 1, kInterrupted = 2, kRefused = 3 };

// Functions of the Python interpreter: PyEval_SaveThread, PyEval_RestoreThread, PyErr_CheckSignals.
struct Interpreter {
  void* (*release)();
  void (*acquire)(void*);
  int (*check_signals)();  // not 0 where a signal's handler raised
};

// The progress of a call.  Once its status is an error, no further task begins.  The constructor releases the
// interpreter's lock and the destructor acquires it; `poll` acquires it for a moment to check for Ctrl-C.
class Progress {
 public:
  explicit Progress(const Interpreter* interpreter)  // null where there is none
      : interpreter_(interpreter), thread_(interpreter ? interpreter->release() : nullptr) {}
  ~Progress() {
    if (interpreter_) interpreter_->acquire(thread_);
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  bool ok() const { return status_.load(std::memory_order_relaxed) == kDone; }
  Status status() const { return (Status)status_.load(); }
  void fail(Status status) { status_ = status; }

  // Every thread calls this between tasks; the calling thread checks for signals.
  void poll() {
    if (!interpreter_ || std::this_thread::get_id() != caller_) return;
    if (Clock::now() < next_) return;
    interpreter_->acquire(thread_);
    if (ok() && interpreter_->check_signals()) fail(kInterrupted);
    thread_ = interpreter_->release();
    next_ = Clock::now() + kPollInterval;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kPollInterval{50};

  const Interpreter* const interpreter_;
  void* thread_;
  const std::thread::id caller_ = std::this_thread::get_id();
  std::atomic<int> status_{kDone};
  Clock::time_point next_ = Clock::now() + kPollInterval;
};

// Calls work(data) on several threads at once, of which the caller is one, and waits for all of them.  The signature is
// that of libgomp's GOMP_parallel, which runs the work on torch's threads.
using Parallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

// The same with new threads, where no libgomp is available.  Uses as many threads as the system grants.
inline void spawn(void (*work)(void*), void* data, unsigned threads, unsigned) {
  std::vector<std::thread> others;
  try {
    others.reserve(threads - 1);
    while (others.size() < threads - 1) others.emplace_back(work, data);
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {
  }
  work(data);
  for (auto& other : others) other.join();
}

// Threads that share out tasks.  They should be torch's own threads: torch's idle threads spin for some milliseconds
// before they sleep, and other threads would wait that long for a free core.
class Team {
 public:
  // One thread, the caller's.
  explicit Team(Progress& progress) : progress_(progress) {}
  Team(Progress& progress, Parallel parallel, int threads)
      : progress_(progress), parallel_(parallel ? parallel : spawn), threads_(threads) {}

  int threads() const { return threads_; }

  // Calls task(i, member) for i = 0 .. count - 1, each on one of the threads; returns when every task is done.  Each
  // thread has its own `member`, from 0 to threads - 1.  Results must not depend on which thread runs a task.
  template <class Task>
  void each(int64_t count, const Task& task) {
    Shared<Task> shared{progress_, task, count};
    const int64_t threads = std::min<int64_t>(threads_, count);
    if (threads > 1)
      parallel_(&Shared<Task>::run_tasks, &shared, (unsigned)threads, 0);
    else
      Shared<Task>::run_tasks(&shared);
  }

 private:
  template <class Task>
  struct Shared {
    Progress& progress;
    const Task& task;
    const int64_t count;
    std::atomic<int64_t> next{0};
    std::atomic<int> members{0};

    static void run_tasks(void* data) {
      auto& s = *static_cast<Shared*>(data);
      const int member = s.members++;
      for (int64_t i = s.next++; i < s.count; i = s.next++) {
        s.progress.poll();
        if (!s.progress.ok()) return;
        try {
          s.task(i, member);
        } catch (const std::bad_alloc&) {
          s.progress.fail(kOutOfMemory);
        }
      }
    }
  };

  Progress& progress_;
  const Parallel parallel_ = nullptr;
  const int threads_ = 1;
};

}  // namespace native
