// One block of 64 channels of one population: every sample of a tile, every pixel, and the steps
// innermost, so that the membrane stays near and the same weights are warm.
#pragma once

#include <cstddef>
#include <cstdint>

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
  Tap* taps = nullptr;
  std::size_t tap_count = 0;
};

template <class T>
struct BlockTask {
  const Group<T>* group = nullptr;
  std::size_t block = 0, samples = 0, steps = 0;  // steps: 1 when nothing changes
  EdgeTask<T>* edges = nullptr;
  std::size_t edge_count = 0;
  uint64_t* masks = nullptr;   // [sample][step][pixel][blocks], spiking groups
  T* values = nullptr;         // [sample][step][pixel][blocks * 64], the others
  int32_t* active = nullptr;   // [step][64]
  T* currents = nullptr;       // [sample][step][pixel][64] of the first samples
  T* membranes = nullptr;      // the same, after the step
  std::size_t currents_of = 0, membranes_of = 0;
};

struct Kernels {
  const char* isa;
  void (*float_block)(const BlockTask<float>&);
  void (*integer_block)(const BlockTask<int32_t>&);
  void (*masks)(const uint64_t*, std::size_t, const Scan&, uint32_t*, uint32_t*);
  void (*float_values)(const float*, const Strides&, const Scan&, uint32_t*, float*, uint32_t*);
  void (*integer_values)(const int32_t*, const Strides&, const Scan&, uint32_t*, int32_t*,
                         uint32_t*);
};

// The widest this machine has, or the one asked for ("base", "v3", "v4"; empty: the environment's
// SNNPIPE_ISA, else the widest). Throws std::invalid_argument when there is no such one here.
const Kernels& kernels_for(const char* isa);

// The sum of one edge into 64 neurons at (pixel, block), from +0, bias last.
template <class T, int W>
SNNPIPE_INLINE void edge_sum(Lanes<T, W>& sum, const EdgeTask<T>& task, std::size_t frame,
                             std::size_t pixel, std::size_t block) {
  sum.zero();
  const Source<T>& source = task.source;
  const std::size_t first_pixel = frame * source.pixels;
  if (task.edge->op == Op::linear) {
    gather(sum, task.events, task.weights, task.taps, task.tap_count, first_pixel);
  } else if (task.edge->op == Op::pool) {
    for (std::size_t k = 0; k < task.tap_count; ++k) {
      for (uint32_t p = task.taps[k].first; p < task.taps[k].last; ++p) {
        add_pixel(sum, source, frame, p, block);
      }
    }
    if (task.edge->area != T{0}) sum.divide(task.edge->area);
  } else if (!task.edge->permutes) {
    add_pixel(sum, source, frame, pixel, block);
  } else {
    alignas(kAlignment) T row[kLanes] = {};
    const std::size_t size = source.channels * source.pixels;
    for (std::size_t i = block * kLanes; i < size && i < (block + 1) * kLanes; ++i) {
      row[i % kLanes] = read(source, frame, i % source.pixels, i / source.pixels);
    }
    sum.add(row);
  }
  if (task.bias != nullptr) sum.add(task.bias);
}

// Adds up the edges, in their order; what is injected in membrane units goes to `direct`.
template <class T, int W>
SNNPIPE_INLINE void total_of(const BlockTask<T>& task, std::size_t sample, std::size_t step,
                             std::size_t pixel, T* total, T* direct) {
  Lanes<T, W> all;
  all.zero();
  for (std::size_t e = 0; e < task.edge_count; ++e) {
    const EdgeTask<T>& edge = task.edges[e];
    if (edge.source.frames == 1 && step > 0) {
      if (edge.edge->op != Op::inject) all.add(edge.kept);
      continue;
    }
    Lanes<T, W> sum;
    edge_sum(sum, edge, sample * edge.source.frames + step, pixel, task.block);
    if (edge.edge->op == Op::inject) {
      sum.store(direct);
      continue;
    }
    if (edge.source.frames == 1) sum.store(edge.kept);
#pragma GCC unroll 16
    for (int j = 0; j < Lanes<T, W>::kCount; ++j) all.v[j] += sum.v[j];
  }
  all.store(total);
}

template <class T, int W>
SNNPIPE_INLINE void run_block(const BlockTask<T>& task) {
  const Group<T>& group = *task.group;
  const std::size_t pixels = group.shape.pixels(), blocks = group.shape.blocks();
  const bool spiking = group.kind == Kind::spiking;
  alignas(kAlignment) T total[kLanes], direct[kLanes];
  State<T> state;
  for (std::size_t n = 0; n < task.samples; ++n) {
    for (std::size_t p = 0; p < pixels; ++p) {
      for (std::size_t e = 0; e < task.edge_count; ++e) {
        EdgeTask<T>& edge = task.edges[e];
        if (edge.taps == nullptr) continue;
        edge.tap_count = taps_at(edge.edge->geometry, edge.channels,
                                 static_cast<std::ptrdiff_t>(p / group.shape.width),
                                 static_cast<std::ptrdiff_t>(p % group.shape.width), edge.taps);
      }
      Lanes<T, W> zero;
      zero.zero();
      zero.store(state.v);
      zero.store(state.u);
      zero.store(direct);
      for (std::size_t t = 0; t < task.steps; ++t) {
        total_of<T, W>(task, n, t, p, total, direct);
        const std::size_t frame = n * task.steps + t;
        if (spiking) {
          task.masks[(frame * pixels + p) * blocks + task.block] =
              step<W>(group.neurons, p, task.block, total, direct, state,
                      task.active + t * kLanes);
          if (n < task.membranes_of) {
            zero.load(state.v);
            zero.store(task.membranes + (frame * pixels + p) * kLanes);
          }
        } else {
          if (group.kind == Kind::sum) pass_on<W>(group.neurons, p, task.block, total, direct);
          zero.load(total);
          zero.store(task.values + ((frame * pixels + p) * blocks + task.block) * kLanes);
        }
        if (n < task.currents_of) {
          zero.load(total);
          zero.store(task.currents + (frame * pixels + p) * kLanes);
        }
      }
    }
  }
}

}  // namespace snnpipe
