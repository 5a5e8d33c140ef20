// Runs a plan on a batch, a tile of samples at a time: stage by stage, over all steps at once, or
// step by step where a stage is a loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan.hpp"

namespace snnpipe {

// One input of the plan: (B, N) shown at every step, or (T, B, N); N in C, H, W order.
template <class T>
struct Frames {
  const T* data = nullptr;
  bool per_step = false;
};

// Where the record of one group goes; null: not wanted. Neurons in C, H, W order.
template <class T>
struct GroupRecord {
  int64_t* fired = nullptr;   // (T, N)
  uint8_t* spikes = nullptr;  // (T, B', ceil(N / 8)), little-endian
  T* currents = nullptr;      // (T, B'', N)
  T* membranes = nullptr;     // (T, B''', N), after the step
  int64_t* active = nullptr;  // (T)
  int64_t* overflows = nullptr;  // one number, over all samples, steps and neurons; integers
};

// The batch, and of how many first samples to keep spikes, currents and membranes. `tile` samples
// run together; 0 lets the engine choose. The results do not depend on it.
struct Request {
  std::size_t steps = 1, batch = 0, spikes = 0, currents = 0, membranes = 0, tile = 0;
};

// All records must be zeroed; `outputs` is (T, B, K). Throws std::invalid_argument for an input
// that is not finite or larger than the plan was told.
template <class T>
void execute(const Plan<T>& plan, const Request& request, const std::vector<Frames<T>>& inputs,
             const std::vector<GroupRecord<T>>& records, T* outputs);

}  // namespace snnpipe
