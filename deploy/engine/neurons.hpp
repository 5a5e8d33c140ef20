// One step of 64 neurons, as network/dynamics.py defines it; tests hold the two together.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.hpp"

namespace snnpipe {

// What a kernel leaves out. Plain float neurons: LIF and IF without gain, leak, synaptic current and
// late reset. Plain integer ones: the current has no memory and a spike leaves 0. Others pay a tenth
// for code they could do without; `counted` counts what leaves its range, integers only.
enum class Form { plain, general, counted };

// State of 64 neurons over the steps of one run.
template <class T>
struct State {
  alignas(kAlignment) T v[kLanes];  // membrane
  alignas(kAlignment) T u[kLanes];  // synaptic current, where it has a memory
};

// Fired lanes (0 or -1 each) to a mask word.
template <int N>
SNNPIPE_INLINE uint64_t word_of(const int32_t* fired) {
  alignas(kAlignment) uint8_t bytes[N];
  for (int i = 0; i < N; ++i) bytes[i] = static_cast<uint8_t>(fired[i] & 1);
  return pack_bytes<N>(bytes);
}

// What enters the membrane: the sum of the edges itself, or, in `row`, what synaptic current, gain
// and leak make of it. A rounded product, then a rounded sum, everywhere.
template <int W, int N>
SNNPIPE_INLINE const float* drive(const Neurons<float>& neurons, std::size_t pixel,
                                  std::size_t block, const float* current, State<float>& state,
                                  float* row) {
  Lanes<float, W, N> value;
  if (!neurons.synaptic_decay.empty()) {
    Lanes<float, W, N> fresh;
    fresh.load(current);
    fresh.multiply(neurons.synaptic_gain.at(pixel, block));
    value.load(state.u);
    value.multiply(neurons.synaptic_decay.at(pixel, block));
    value.add(fresh);
    value.store(state.u);
    current = state.u;
  }
  if (!neurons.gain.empty()) {
    value.load(current);
    value.multiply(neurons.gain.at(pixel, block));
    value.add(neurons.leak.at(pixel, block));
    value.store(row);
    current = row;
  }
  return current;
}

// Spikes of 64 neurons, and their membranes after the step; counts, per lane, updates with a
// current or a spike. Both comparisons and both resets are one straight line, u > th or (u == th
// and allowed), and (u or 0) + after: g++ 12 takes a comparison of vectors apart, lane by lane,
// when it moves it out of a branch. With a late reset the membrane kept is the one that was held
// against the threshold, so it tells what the last spike still owes (at first 0, which cannot
// fire).
template <int W, int N, bool kLate>
SNNPIPE_INLINE uint64_t fire(const Neurons<float>& neurons, std::size_t pixel, std::size_t block,
                             const float* current, const float* driven, State<float>& state,
                             int32_t* active) {
  typedef typename Lanes<float, W, N>::Vector Values;
  typedef typename Lanes<int32_t, W, N>::Vector Flags;
  const Values* decay = reinterpret_cast<const Values*>(neurons.decay.at(pixel, block));
  const Values* threshold = reinterpret_cast<const Values*>(neurons.threshold.at(pixel, block));
  const Values* after = reinterpret_cast<const Values*>(neurons.after.at(pixel, block));
  const Values* sum = reinterpret_cast<const Values*>(current);
  const Values* input = reinterpret_cast<const Values*>(driven);
  Values* v = reinterpret_cast<Values*>(state.v);
  Flags* counts = reinterpret_cast<Flags*>(active);
  alignas(kAlignment) int32_t fired[kLanes];
#pragma GCC unroll 16
  for (int j = 0; j < Lanes<float, W, N>::kCount; ++j) {
    Values u = decay[j] * v[j] + input[j];
    if constexpr (kLate) {
      const Flags fired_before =
          (v[j] > threshold[j]) | ((v[j] == threshold[j]) & neurons.equality_fires);
      const Flags owed = reinterpret_cast<const Flags*>(threshold)[j] & fired_before;
      u -= reinterpret_cast<const Values&>(owed);
    }
    const Flags spike = (u > threshold[j]) | ((u == threshold[j]) & neurons.equality_fires);
    if constexpr (kLate) {
      v[j] = u;
    } else {
      const Flags kept = reinterpret_cast<const Flags&>(u) & neurons.membrane_stays;
      v[j] = spike ? reinterpret_cast<const Values&>(kept) + after[j] : u;
    }
    reinterpret_cast<Flags*>(fired)[j] = spike;
    counts[j] -= (sum[j] != 0.0f) | spike;
  }
  return word_of<N>(fired);
}

// One step of neurons that fire. `current` comes in as the sum of the edges and leaves as the whole
// current. Returns the spikes.
template <int W, int N, Form kForm>
SNNPIPE_INLINE uint64_t step(const Neurons<float>& neurons, std::size_t pixel, std::size_t block,
                             float* current, const float*, State<float>& state, int32_t* active,
                             int32_t*) {
  if constexpr (kForm == Form::plain) {
    return fire<W, N, false>(neurons, pixel, block, current, current, state, active);
  } else {
    alignas(kAlignment) float row[kLanes];
    const float* driven = drive<W, N>(neurons, pixel, block, current, state, row);
    return neurons.resets_late
               ? fire<W, N, true>(neurons, pixel, block, current, driven, state, active)
               : fire<W, N, false>(neurons, pixel, block, current, driven, state, active);
  }
}

// One step of neurons that do not fire: their membranes.
template <int W, int N>
SNNPIPE_INLINE const float* leak(const Neurons<float>& neurons, std::size_t pixel,
                                 std::size_t block, const float* current, State<float>& state) {
  alignas(kAlignment) float row[kLanes];
  Lanes<float, W, N> v;
  v.load(state.v);
  v.multiply(neurons.decay.at(pixel, block));
  v.add(drive<W, N>(neurons, pixel, block, current, state, row));
  v.store(state.v);
  return state.v;
}

// x * factor / 4096 rounded toward zero, 0 <= factor <= 4096, |x| <= 2^30, in 32 bits: with
// |x| = 4096 h + l both h * factor and l * factor fit, and the first has no fraction.
template <class Vector>
SNNPIPE_INLINE void decay(Vector& x, const Vector& factor) {
  const Vector sign = x >> 31;
  const Vector size = (x ^ sign) - sign;
  x = (size >> 12) * factor + (((size & 4095) * factor) >> 12);
  x = (x ^ sign) - sign;
}

// The current after one wrap, as Loihi's 24 bits: (-2^23, 2^23] where the sums are within 2^24.
template <class Vector>
SNNPIPE_INLINE void wrap(Vector& u) {
  constexpr int32_t kWrap = 1 << 23;
  u += ((u > kWrap) & -2 * kWrap) | ((u <= -kWrap) & 2 * kWrap);
}

// One step of Loihi's neurons; 32 bits hold every value because the plan bounds the sums (see
// plan.cpp). `lost` counts, per lane, currents that wrap and membranes that saturate, but for those
// that are reset from above their threshold.
template <int W, int N, Form kForm>
SNNPIPE_INLINE uint64_t step(const Neurons<int32_t>& neurons, std::size_t pixel, std::size_t block,
                             int32_t* current, const int32_t* direct, State<int32_t>& state,
                             int32_t* active, int32_t* lost) {
  typedef typename Lanes<int32_t, W, N>::Vector Values;
  constexpr int32_t kMost = (1 << 23) - 1;
  const Values* memory = reinterpret_cast<const Values*>(neurons.current_factor.at(pixel, block));
  const Values* factor = reinterpret_cast<const Values*>(neurons.factor.at(pixel, block));
  const Values* threshold = reinterpret_cast<const Values*>(neurons.threshold.at(pixel, block));
  const Values* bias = reinterpret_cast<const Values*>(neurons.bias.at(pixel, block));
  const Values* injected = reinterpret_cast<const Values*>(direct);
  const bool stays = kForm != Form::plain && !neurons.taken.empty();
  const Values* taken =
      stays ? reinterpret_cast<const Values*>(neurons.taken.at(pixel, block)) : threshold;
  const Values subtracts = Values{} - static_cast<int32_t>(stays);
  Values* total = reinterpret_cast<Values*>(current);
  Values* membrane = reinterpret_cast<Values*>(state.v);
  Values* held = reinterpret_cast<Values*>(state.u);
  Values* counts = reinterpret_cast<Values*>(active);
  Values* out_of_range = reinterpret_cast<Values*>(lost);
  alignas(kAlignment) int32_t fired[kLanes];
#pragma GCC unroll 16
  for (int j = 0; j < Lanes<int32_t, W, N>::kCount; ++j) {
    Values gathered = total[j] * 64;
    if constexpr (kForm != Form::plain) {
      Values before = held[j];
      decay(before, memory[j]);
      gathered += before;
    }
    Values u = gathered;
    wrap(u);
    const Values whole = u + bias[j] + injected[j];
    Values v = membrane[j];
    decay(v, factor[j]);
    v += whole;
    const Values above = v > kMost, below = v < -kMost;
    v = above ? Values{} + kMost : v;
    v = below ? Values{} - kMost : v;
    const Values spike = v > threshold[j];
    if constexpr (kForm == Form::plain) {
      membrane[j] = v & ~spike;
    } else {
      held[j] = u;
      membrane[j] = (v & (~spike | subtracts)) - (taken[j] & spike & subtracts);
    }
    if constexpr (kForm == Form::counted) {
      out_of_range[j] -= (gathered != u) + below + (above & (~spike | subtracts));
    }
    total[j] = whole;
    reinterpret_cast<Values*>(fired)[j] = spike;
    counts[j] -= (whole != 0) | spike;
  }
  return word_of<N>(fired);
}

// A group without state: its sum, in integers as membrane units.
template <int W, int N>
SNNPIPE_INLINE void pass_on(const Neurons<float>&, std::size_t, std::size_t, float*, const float*) {
}
template <int W, int N>
SNNPIPE_INLINE void pass_on(const Neurons<int32_t>& neurons, std::size_t pixel, std::size_t block,
                            int32_t* current, const int32_t* direct) {
  Lanes<int32_t, W, N> value;
  value.load(current);
#pragma GCC unroll 16
  for (int j = 0; j < Lanes<int32_t, W, N>::kCount; ++j) value.v[j] *= 64;
  value.add(neurons.bias.at(pixel, block));
  value.add(direct);
  value.store(current);
}

}  // namespace snnpipe
