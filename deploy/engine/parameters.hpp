// Arrays of the caller to parameters in rows of 64, and the checks that go with them. All throw
// std::invalid_argument that says where, what was found and what is legal.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "plan.hpp"

namespace snnpipe {

constexpr std::size_t kLargestAxis = std::size_t{1} << 24;
constexpr int32_t kLargestBias = 1 << 28;

[[noreturn]] void fail(const std::string& where, const std::string& what);

std::string text(const std::vector<std::size_t>& shape);
std::string text(const Shape& shape);

void check_shape(const Shape& shape);

template <class T>
void check_finite(const std::string& where, const T* data, std::size_t size);

// One value, one per channel or one per neuron (C, H, W order) to rows of 64; `fill` pads.
template <class T>
Rows<T> rows_of(const std::string& name, const Shape& shape, const View<T>& view, T fill);

enum class Reset { value, subtract, late };  // late: subtracted one step later, behind the decay

struct Firing {
  View<float> threshold, rest;
  bool at_threshold = false;
  Reset reset = Reset::value;
};

using Views = std::pair<View<float>, View<float>>;

// A float neuron; what does not fire emits its membrane.
struct FloatNeuron {
  View<float> decay;
  std::optional<Firing> firing;
  std::optional<Views> driven;    // gain and leak
  std::optional<Views> filtered;  // decay and gain of the synaptic current
};

Neurons<float> float_neurons(const Shape& shape, const FloatNeuron& neuron);
// `at_threshold`: fires at the threshold too; `subtracts`: a spike takes the threshold off.
Neurons<int32_t> integer_neurons(const Shape& shape, const View<int32_t>& du,
                                 const View<int32_t>& dv, const View<int32_t>& threshold,
                                 const View<int32_t>& bias, bool at_threshold, bool subtracts);
Neurons<int32_t> integer_bias(const Shape& shape, const View<int32_t>& bias);

}  // namespace snnpipe
