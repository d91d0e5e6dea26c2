// Threads that share out tasks, and a caller who may call them off.
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

// kRefused: an input is not finite or out of its range.
enum Status : int { kDone = 0, kOutOfMemory = 1, kInterrupted = 2, kRefused = 3 };

// Functions of the Python interpreter: PyEval_SaveThread, PyEval_RestoreThread, PyErr_CheckSignals.
struct Interpreter {
  void* (*release)();
  void (*acquire)(void*);
  int (*check_signals)();  // not 0 where a signal's handler raised
};

// How a call is going.  Once it is not well, whatever work has not begun is left undone.  Lets go of the interpreter's
// lock, and takes it up again at the end, or for a moment to see whether the user has pressed Ctrl-C.
class Progress {
 public:
  explicit Progress(const Interpreter* interpreter)  // null where there is none
      : interpreter_(interpreter), thread_(interpreter ? interpreter->release() : nullptr) {}
  ~Progress() {
    if (interpreter_) interpreter_->acquire(thread_);
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  bool well() const { return status_.load(std::memory_order_relaxed) == kDone; }
  Status status() const { return (Status)status_.load(); }
  void fail(Status status) { status_ = status; }

  // To be called by every thread now and then.
  void ask() {
    if (!interpreter_ || std::this_thread::get_id() != caller_) return;
    if (Clock::now() < next_) return;
    interpreter_->acquire(thread_);
    if (well() && interpreter_->check_signals()) fail(kInterrupted);
    thread_ = interpreter_->release();
    next_ = Clock::now() + kPatience;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kPatience{50};

  const Interpreter* const interpreter_;
  void* thread_;
  const std::thread::id caller_ = std::this_thread::get_id();
  std::atomic<int> status_{kDone};
  Clock::time_point next_ = Clock::now() + kPatience;
};

// Calls work(data) on several threads at once and waits for all of them; the caller is one.  The signature is that of
// libgomp's GOMP_parallel, through which a caller lends the threads that its other libraries compute with.
using Parallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

// The same with threads of our own, for where there is nothing to borrow.  As many as are to be had.
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

// Threads that share out tasks.  There must be no threads besides those that torch computes with: its idle ones watch
// for work for some milliseconds before they sleep, and others would wait that long for a free processor.
class Team {
 public:
  // One thread, the caller's.
  explicit Team(Progress& progress) : progress_(progress) {}
  Team(Progress& progress, Parallel parallel, int threads)
      : progress_(progress), parallel_(parallel ? parallel : spawn), threads_(threads) {}

  int threads() const { return threads_; }

  // Calls task(i, member) for i = 0 .. count - 1, each on one of the threads; returns when every task is done.  No two
  // threads are the same member, from 0 to threads - 1.  Which thread takes a task must not matter to the result.
  template <class Task>
  void each(int64_t count, const Task& task) {
    Shared<Task> shared{progress_, task, count};
    const int64_t threads = std::min<int64_t>(threads_, count);
    if (threads > 1)
      parallel_(&Shared<Task>::join, &shared, (unsigned)threads, 0);
    else
      Shared<Task>::join(&shared);
  }

 private:
  template <class Task>
  struct Shared {
    Progress& progress;
    const Task& task;
    const int64_t count;
    std::atomic<int64_t> next{0};
    std::atomic<int> members{0};

    static void join(void* data) {
      auto& s = *static_cast<Shared*>(data);
      const int member = s.members++;
      for (int64_t i = s.next++; i < s.count; i = s.next++) {
        s.progress.ask();
        if (!s.progress.well()) return;
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
