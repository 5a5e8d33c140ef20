// One block of 64 channels of one population: every sample of a tile, every pixel, and the steps of
// a window innermost, so that the membrane stays near and the same weights are warm.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <type_traits>

#include "kernels.hpp"
#include "neurons.hpp"
#include "plan.hpp"

namespace snnpipe {

template <class T>
struct EdgeTask {
  const Edge<T>* edge = nullptr;
  Source<T> source;
  Events<T> events;           // linear edges
  const T* weights = nullptr;  // of this block
  std::size_t channels = 0;    // that the block reads
  const T* bias = nullptr;     // of this block
  T* kept = nullptr;           // 64 sums of a source that does not change
  int64_t kept_wrapped = 0;    // how many of them wrapped
  Tap* taps = nullptr;
  std::size_t tap_count = 0;
};

template <class T>
struct BlockTask {
  const Group<T>* group = nullptr;
  std::size_t block = 0, samples = 0;
  std::size_t begin = 0, end = 0;  // the window of steps; 0 and 1 when nothing changes
  EdgeTask<T>* edges = nullptr;
  std::size_t edge_count = 0;
  State<T>* states = nullptr;  // [sample][pixel], kept between windows; null: one window is all
  uint64_t* masks = nullptr;   // [step][sample][pixel][blocks], spiking groups
  T* values = nullptr;         // [step][sample][pixel][blocks * 64], the others
  int32_t* active = nullptr;   // [step of the window][64]
  T* currents = nullptr;       // [step of the window][sample][pixel][64] of the first samples
  T* membranes = nullptr;      // the same, after the step
  std::size_t currents_of = 0, membranes_of = 0;
  int64_t* overflows = nullptr;  // wraps and saturations of the window; null: not counted
};

template <class T>
using BlockKernel = void (*)(const BlockTask<T>&);

// The kernels of a block by the lanes it looks at; see `Form` in neurons.hpp.
struct BlockKernels {
  BlockKernel<float> plain_float, general_float;
  BlockKernel<int32_t> plain_integer, general_integer, counted_integer;
};

struct Kernels {
  const char* isa;
  BlockKernels lanes16, lanes32, lanes64;
  const BlockKernels& of(std::size_t channels) const {
    return channels <= 16 ? lanes16 : channels <= 32 ? lanes32 : lanes64;
  }
  void (*masks)(const uint64_t*, std::size_t, const Scan&, uint32_t*, uint32_t*);
  void (*float_values)(const float*, const Strides&, const Scan&, uint32_t*, float*, uint32_t*);
  void (*integer_values)(const int32_t*, const Strides&, const Scan&, uint32_t*, int32_t*,
                         uint32_t*);
};

// The widest this machine has, or the one asked for ("base", "v3", "v4"; empty: the environment's
// SNNPIPE_ISA, else the widest). Throws std::invalid_argument when there is no such one here.
const Kernels& kernels_for(const char* isa);

// Adds what one edge brings 64 neurons at (pixel, block) to `sum`, which is +0; without the bias.
// Returns how many lanes wrapped.
template <class T, int W, int N>
SNNPIPE_INLINE int64_t edge_sum(Lanes<T, W, N>& sum, const EdgeTask<T>& task, const Shape& shape,
                             std::size_t frame, std::size_t pixel, std::size_t block) {
  const Source<T>& source = task.source;
  if (task.edge->op == Op::linear) {
    const std::size_t first_pixel = (frame - task.events.first_frame) * source.pixels;
    gather(sum, task.events, task.weights, task.taps, task.tap_count, first_pixel);
    return task.edge->wraps || task.edge->shift != 0 ? finish(sum, *task.edge) : 0;
  }
  if (task.edge->op == Op::pool) {
    for (std::size_t k = 0; k < task.tap_count; ++k) {
      for (uint32_t p = task.taps[k].first; p < task.taps[k].last; ++p) {
        add_pixel(sum, source, frame, p, block);
      }
    }
    if (task.edge->area != T{0}) sum.divide(task.edge->area);
    return 0;
  }
  if (!task.edge->permutes) {
    add_pixel(sum, source, frame, pixel, block);
  } else {
    alignas(kAlignment) T row[kLanes] = {};
    for (std::size_t c = block * kLanes; c < shape.channels && c < (block + 1) * kLanes; ++c) {
      const std::size_t i = c * shape.pixels() + pixel;
      row[c % kLanes] = read(source, frame, i % source.pixels, i / source.pixels);
    }
    sum.add(row);
  }
  if (!task.edge->factor.empty()) sum.multiply(task.edge->factor.at(pixel, block));
  return 0;
}

// Adds up the edges, in their order; what is injected in membrane units goes to `direct`. Returns
// how many lanes wrapped.
template <class T, int W, int N>
SNNPIPE_INLINE int64_t total_of(const BlockTask<T>& task, std::size_t sample, std::size_t step,
                             std::size_t pixel, T* total, T* direct) {
  Lanes<T, W, N> all;
  all.zero();
  int64_t wrapped = 0;
  for (std::size_t e = 0; e < task.edge_count; ++e) {
    EdgeTask<T>& edge = task.edges[e];
    const std::size_t delay = edge.edge->delay;
    const bool still = edge.source.steps == 1;
    if (still && step > task.begin && step > delay) {
      if (edge.edge->op != Op::inject) all.add(edge.kept);
      wrapped += edge.kept_wrapped;
      continue;
    }
    Lanes<T, W, N> sum;
    sum.zero();
    int64_t lanes = 0;
    if (step >= delay) {
      const std::size_t frame = (still ? 0 : step - delay) * task.samples + sample;
      lanes = edge_sum(sum, edge, task.group->shape, frame, pixel, task.block);
    }
    if (edge.bias != nullptr) sum.add(edge.bias);
    if (edge.edge->op == Op::inject) {
      sum.store(direct);
      continue;
    }
    if (still) {
      sum.store(edge.kept);
      edge.kept_wrapped = lanes;
    }
    wrapped += lanes;
    all.add(sum);
  }
  all.store(total);
  return wrapped;
}

template <class T, int W, int N, Form kForm>
SNNPIPE_INLINE void run_block(const BlockTask<T>& task) {
  const Group<T>& group = *task.group;
  const std::size_t pixels = group.shape.pixels(), blocks = group.shape.blocks();
  alignas(kAlignment) T total[kLanes], direct[kLanes];
  alignas(kAlignment) int32_t lost[kLanes];
  State<T> state{};
  Lanes<T, W, N> lanes;
  for (std::size_t n = 0; n < task.samples; ++n) {
    for (std::size_t p = 0; p < pixels; ++p) {
      for (std::size_t e = 0; e < task.edge_count; ++e) {
        EdgeTask<T>& edge = task.edges[e];
        if (edge.taps == nullptr) continue;
        edge.tap_count = taps_at(edge.edge->geometry, edge.channels,
                                 static_cast<std::ptrdiff_t>(p / group.shape.width),
                                 static_cast<std::ptrdiff_t>(p % group.shape.width), edge.taps);
      }
      lanes.zero();
      lanes.store(direct);
      lanes.store(state.v);
      lanes.store(state.u);
      if (task.begin > 0) state = task.states[n * pixels + p];
      int64_t wrapped = 0;
      if constexpr (kForm == Form::counted) std::fill_n(lost, kLanes, 0);
      for (std::size_t t = task.begin; t < task.end; ++t) {
        wrapped += total_of<T, W, N>(task, n, t, p, total, direct);
        const std::size_t at = (t * task.samples + n) * pixels + p;
        const std::size_t kept = t - task.begin;
        if (group.kind == Kind::spiking) {
          task.masks[at * blocks + task.block] =
              step<W, N, kForm>(group.neurons, p, task.block, total, direct, state,
                              task.active + kept * kLanes, lost);
          if (n < task.membranes_of) {
            lanes.load(state.v);
            lanes.store(task.membranes + ((kept * task.membranes_of + n) * pixels + p) * kLanes);
          }
        } else {
          const T* value = total;
          if (group.kind == Kind::sum) pass_on<W, N>(group.neurons, p, task.block, total, direct);
          if constexpr (kForm == Form::general && std::is_floating_point<T>::value) {  // leaky
            value = leak<W, N>(group.neurons, p, task.block, total, state);
          }
          lanes.load(value);
          lanes.store(task.values + (at * blocks + task.block) * kLanes);
        }
        if (n < task.currents_of) {
          lanes.load(total);
          lanes.store(task.currents + ((kept * task.currents_of + n) * pixels + p) * kLanes);
        }
      }
      if (task.states != nullptr) task.states[n * pixels + p] = state;
      if (task.overflows != nullptr) {
        if constexpr (kForm == Form::counted) wrapped = std::accumulate(lost, lost + kLanes, wrapped);
        *task.overflows += wrapped;
      }
    }
  }
}

}  // namespace snnpipe
