// Threads that work through phases together, and a caller who may call them off.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace splat {

enum Status : int { kDone = 0, kOutOfMemory = 1, kInterrupted = 2 };

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

// Threads that all call `each` with the same counts, one after another.  A team of one is a plain loop.
class Team {
 public:
  explicit Team(Progress& progress) : progress_(progress) {}

  int size() const { return size_; }

  // Calls work(member) once on each of `wanted` threads, or of as many as are to be had; member 0 is this thread.
  template <class Work>
  void gather(int wanted, const Work& work) {
    std::vector<std::thread> others;
    others.reserve(wanted - 1);
    std::atomic<bool> complete{false};
    try {
      while ((int)others.size() < wanted - 1)
        others.emplace_back([&complete, &work, member = (int)others.size() + 1] {
          while (!complete) std::this_thread::yield();
          work(member);
        });
    } catch (const std::system_error&) {  // those that started, and this one, do it all
    } catch (const std::bad_alloc&) {
    }
    size_ = (int)others.size() + 1;
    complete = true;
    work(0);
    for (auto& other : others) other.join();
  }

  // Calls task(0 .. count - 1), shared out among the threads; returns to all of them when every task is done.  Which
  // thread takes a task must not matter to the result.
  template <class Task>
  void each(int64_t count, const Task& task) {
    for (int64_t i = next_++; i < count; i = next_++) {
      progress_.ask();
      if (!progress_.well()) continue;
      try {
        task(i);
      } catch (const std::bad_alloc&) {
        progress_.fail(kOutOfMemory);
      }
    }
    meet();
  }

 private:
  void meet() {
    const int phase = phase_;
    if (++waiting_ == size_) {
      next_ = 0;
      waiting_ = 0;
      ++phase_;
      return;
    }
    for (int spins = 0; phase_ == phase; ++spins) {
      if (spins < kSpins) continue;
      std::this_thread::yield();
      progress_.ask();
    }
  }

  static constexpr int kSpins = 2000;

  Progress& progress_;
  int size_ = 1;
  std::atomic<int64_t> next_{0};
  std::atomic<int> waiting_{0}, phase_{0};
};

}  // namespace splat
