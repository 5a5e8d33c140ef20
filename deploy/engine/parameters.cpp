#include "parameters.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace snnpipe {
namespace {

constexpr std::size_t kLargestGroup = std::size_t{1} << 30;

bool finite(float value) { return std::isfinite(value); }
bool finite(int32_t) { return true; }

void check_range(const std::string& name, const View<int32_t>& view, int32_t low, int32_t high) {
  for (std::size_t i = 0; i < view.size(); ++i) {
    if (view.data[i] < low || view.data[i] > high) {
      fail("parameter '" + name + "'", "holds " + std::to_string(view.data[i]) + "; expected " +
                                           std::to_string(low) + " to " + std::to_string(high));
    }
  }
}

template <class T, class Change>
void change(Rows<T>& rows, Change apply) {
  T* data = rows.values.data();
  std::transform(data, data + rows.values.size(), data, apply);
}

}  // namespace

void fail(const std::string& where, const std::string& what) {
  throw std::invalid_argument(where + ": " + what);
}

std::string text(const std::vector<std::size_t>& shape) {
  std::string out;
  for (std::size_t axis : shape) out += (out.empty() ? "" : ", ") + std::to_string(axis);
  return "(" + out + ")";
}

std::string text(const Shape& s) {
  return text(std::vector<std::size_t>{s.channels, s.height, s.width});
}

void check_shape(const Shape& shape) {
  for (std::size_t axis : {shape.channels, shape.height, shape.width}) {
    if (axis < 1 || axis > kLargestAxis) fail("group", "shape " + text(shape) + " is not usable");
  }
  // Each axis is at most 2^24, so the product of two cannot overflow 64 bits.
  if (shape.pixels() > kLargestGroup || shape.channels > kLargestGroup / shape.pixels()) {
    fail("group", "shape " + text(shape) + " has more than 2^30 neurons");
  }
}

template <class T>
void check_finite(const std::string& where, const T* data, std::size_t size) {
  if (!std::all_of(data, data + size, [](T value) { return finite(value); })) {
    fail(where, "holds a value that is not finite");
  }
}

template <class T>
Rows<T> rows_of(const std::string& name, const Shape& shape, const View<T>& view, T fill) {
  const std::size_t n = view.size();
  if (n != 1 && n != shape.channels && n != shape.size()) {
    fail("parameter '" + name + "'", "has " + std::to_string(n) + " values for a group of shape " +
                                         text(shape) + "; expected 1, one per channel or neuron");
  }
  check_finite("parameter '" + name + "'", view.data, n);
  const bool per_neuron = n == shape.size() && n != shape.channels && n != 1;
  const std::size_t pixels = per_neuron ? shape.pixels() : 1;
  const std::size_t stride = shape.blocks() * kLanes;
  Rows<T> rows{Buffer<T>(pixels * stride), per_neuron ? stride : 0};
  std::fill_n(rows.values.data(), pixels * stride, fill);
  for (std::size_t p = 0; p < pixels; ++p) {
    for (std::size_t c = 0; c < shape.channels; ++c) {
      const std::size_t at = n == 1 ? 0 : per_neuron ? c * pixels + p : c;
      rows.values.data()[p * stride + c] = view.data[at];
    }
  }
  return rows;
}

template void check_finite<float>(const std::string&, const float*, std::size_t);
template void check_finite<int32_t>(const std::string&, const int32_t*, std::size_t);
template Rows<float> rows_of<float>(const std::string&, const Shape&, const View<float>&, float);
template Rows<int32_t> rows_of<int32_t>(const std::string&, const Shape&, const View<int32_t>&,
                                        int32_t);

Neurons<float> float_neurons(const Shape& shape, const FloatNeuron& neuron) {
  check_shape(shape);
  Neurons<float> made;
  made.decay = rows_of("decay", shape, neuron.decay, 0.0f);
  if (neuron.driven) {
    made.gain = rows_of("gain", shape, neuron.driven->first, 0.0f);
    made.leak = rows_of("leak", shape, neuron.driven->second, 0.0f);
  }
  if (neuron.filtered) {
    made.synaptic_decay = rows_of("synaptic_decay", shape, neuron.filtered->first, 0.0f);
    made.synaptic_gain = rows_of("synaptic_gain", shape, neuron.filtered->second, 0.0f);
  }
  if (!neuron.firing) return made;
  const Firing& firing = *neuron.firing;
  // Padding never fires: its current is 0 and its threshold infinite.
  const float never = std::numeric_limits<float>::infinity();
  made.threshold = rows_of("threshold", shape, firing.threshold, never);
  made.after = rows_of("v_reset", shape, firing.rest, 0.0f);
  if (firing.reset == Reset::subtract) {
    made.after = rows_of("threshold", shape, firing.threshold, 0.0f);
    change(made.after, [](float value) { return -value; });
    made.membrane_stays = -1;
  }
  made.resets_late = firing.reset == Reset::late;
  made.equality_fires = firing.at_threshold ? -1 : 0;
  return made;
}

Neurons<int32_t> integer_bias(const Shape& shape, const View<int32_t>& bias) {
  check_shape(shape);
  check_range("bias", bias, -kLargestBias, kLargestBias);
  Neurons<int32_t> neurons;
  neurons.bias = rows_of("bias", shape, bias, int32_t{0});
  return neurons;
}

Neurons<int32_t> integer_neurons(const Shape& shape, const View<int32_t>& du,
                                 const View<int32_t>& dv, const View<int32_t>& threshold,
                                 const View<int32_t>& bias, bool at_threshold, bool subtracts) {
  Neurons<int32_t> neurons = integer_bias(shape, bias);
  check_range("du", du, 0, 4095);
  check_range("dv", dv, 0, 4096);
  check_range("threshold", threshold, 0, 1 << 17);
  neurons.current_factor = rows_of("du", shape, du, int32_t{4095});
  change(neurons.current_factor, [](int32_t value) { return 4095 - value; });
  neurons.factor = rows_of("dv", shape, dv, int32_t{4096});
  change(neurons.factor, [](int32_t value) { return 4096 - value; });
  neurons.threshold = rows_of("threshold", shape, threshold, int32_t{1 << 17});
  if (subtracts) {
    neurons.taken = rows_of("threshold", shape, threshold, int32_t{0});
    change(neurons.taken, [](int32_t value) { return value * 64; });
  }
  change(neurons.threshold, [=](int32_t value) { return value * 64 - at_threshold; });
  for (std::size_t i = 0; i < du.size(); ++i) neurons.current_decays |= du.data[i] != 4095;
  return neurons;
}

}  // namespace snnpipe
