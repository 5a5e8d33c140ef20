// Python's view of the engine: arrays in, arrays out, the GIL let go while it runs.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <string>

#include "executor.hpp"
#include "layer.hpp"
#include "parameters.hpp"

namespace py = pybind11;

#ifndef SNNPIPE_FLAGS
#define SNNPIPE_FLAGS "not recorded"
#endif

namespace snnpipe {
namespace {

// What Python expects to find (`INTERFACE` in __init__.py): tells a stale build apart.
constexpr int kInterface = 3;

using Axes = std::array<std::size_t, 3>;
using Pair = std::array<std::size_t, 2>;

Shape shape_from(const Axes& axes) { return {axes[0], axes[1], axes[2]}; }

// No cast and no copy behind the caller's back: a wrong array is refused.
template <class T>
View<T> view(const py::array& array, const char* name) {
  const char* expected = std::is_same<T, float>::value ? "float32" : "int32";
  if (!py::isinstance<py::array_t<T>>(array)) {
    throw std::invalid_argument(std::string(name) + ": dtype " +
                                std::string(py::str(array.dtype())) + "; expected " + expected);
  }
  const int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((array.flags() & needed) != needed) {
    throw std::invalid_argument(std::string(name) + ": expected a C-contiguous, aligned array");
  }
  View<T> made;
  made.data = static_cast<const T*>(array.data());
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    made.shape.push_back(static_cast<std::size_t>(array.shape(axis)));
  }
  return made;
}

template <class T>
std::optional<View<T>> view(const std::optional<py::array>& array, const char* name) {
  if (!array) return std::nullopt;
  return view<T>(*array, name);
}

using Arrays = std::optional<std::pair<py::array, py::array>>;

std::optional<Views> views(const Arrays& arrays, const char* name) {
  if (!arrays) return std::nullopt;
  return Views{view<float>(arrays->first, name), view<float>(arrays->second, name)};
}

Firing firing(const py::array& threshold, const py::array& v_reset, const std::string& compare,
              const std::string& reset) {
  if ((compare != "gt" && compare != "ge") ||
      (reset != "value" && reset != "subtract" && reset != "late")) {
    throw std::invalid_argument("compare is gt or ge, reset is value, subtract or late");
  }
  const Reset kind = reset == "late"       ? Reset::late
                     : reset == "subtract" ? Reset::subtract
                                           : Reset::value;
  return {view<float>(threshold, "threshold"), view<float>(v_reset, "v_reset"), compare == "ge",
          kind};
}

template <class T>
py::array_t<T> zeros(std::vector<std::size_t> shape) {
  std::size_t size = 1;
  for (std::size_t axis : shape) {
    if (axis != 0 && size > (std::size_t{1} << 46) / sizeof(T) / axis) throw std::bad_alloc();
    size *= axis;
  }
  py::array_t<T> array(shape);
  std::memset(array.mutable_data(), 0, size * sizeof(T));
  return array;
}

template <class T>
std::vector<Frames<T>> frames_from(const Plan<T>& plan, const std::vector<py::array>& arrays,
                                   Request& request) {
  if (arrays.size() != plan.inputs()) {
    throw std::invalid_argument("inputs: " + std::to_string(arrays.size()) + " arrays for " +
                                std::to_string(plan.inputs()) + " inputs");
  }
  std::vector<Frames<T>> inputs;
  for (const Group<T>& group : plan.groups) {
    if (group.kind != Kind::input) continue;
    const std::size_t index = inputs.size();
    const View<T> array = view<T>(arrays[index], "input");
    const std::vector<std::size_t>& axes = array.shape;
    const bool per_step = axes.size() == 3;
    if ((axes.size() != 2 && !per_step) || axes.back() != group.shape.size() ||
        (per_step && axes[0] != request.steps)) {
      throw std::invalid_argument("input " + std::to_string(index) +
                                  ": expected the shape (B, N) or (T, B, N) with N = " +
                                  std::to_string(group.shape.size()) +
                                  " and T = " + std::to_string(request.steps));
    }
    const std::size_t batch = axes[axes.size() - 2];
    if (index > 0 && batch != request.batch) {
      throw std::invalid_argument("inputs: they hold different numbers of samples");
    }
    request.batch = batch;
    inputs.push_back({array.data, per_step});
  }
  return inputs;
}

// (outputs, fired, spikes, currents, membranes, active, overflows), the last six by group number.
template <class T>
py::tuple run(const Plan<T>& plan, const std::vector<py::array>& arrays, std::size_t steps,
              std::optional<std::size_t> spikes, std::size_t currents, std::size_t membranes,
              std::size_t tile, const std::vector<std::size_t>& overflows) {
  if (steps < 1 || steps > (std::size_t{1} << 24)) {
    throw std::invalid_argument("steps: expected 1 or more, found " + std::to_string(steps));
  }
  Request request;
  request.steps = steps;
  request.tile = tile;
  const std::vector<Frames<T>> inputs = frames_from(plan, arrays, request);
  if (inputs.empty()) throw std::invalid_argument("the plan has no input");
  request.spikes = std::min(spikes.value_or(request.batch), request.batch);
  request.currents = std::min(currents, request.batch);
  request.membranes = std::min(membranes, request.batch);
  std::vector<GroupRecord<T>> records(plan.groups.size());
  py::dict fired, bits, sums, states, active;
  for (std::size_t g = 0; g < plan.groups.size(); ++g) {
    const Group<T>& group = plan.groups[g];
    if (group.kind == Kind::input || group.kind == Kind::relay) continue;
    const std::size_t size = group.shape.size();
    auto counts = zeros<int64_t>({steps, size});
    records[g].fired = counts.mutable_data();
    fired[py::int_(g)] = counts;
    if (request.currents > 0) {
      auto kept = zeros<T>({steps, request.currents, size});
      records[g].currents = kept.mutable_data();
      sums[py::int_(g)] = kept;
    }
    if (group.kind != Kind::spiking) continue;
    auto packed = zeros<uint8_t>({steps, request.spikes, (size + 7) / 8});
    records[g].spikes = packed.mutable_data();
    bits[py::int_(g)] = packed;
    auto updates = zeros<int64_t>({steps});
    records[g].active = updates.mutable_data();
    active[py::int_(g)] = updates;
    if (request.membranes > 0) {
      auto kept = zeros<T>({steps, request.membranes, size});
      records[g].membranes = kept.mutable_data();
      states[py::int_(g)] = kept;
    }
  }
  std::vector<int64_t> lost(plan.groups.size());
  for (std::size_t g : overflows) {
    if (g >= lost.size() || plan.groups[g].kind == Kind::input) {
      throw std::invalid_argument("overflows: group " + std::to_string(g) + " has no sums");
    }
    records[g].overflows = &lost[g];
  }
  auto outputs = zeros<T>({steps, request.batch, plan.groups[plan.output].shape.size()});
  T* out = outputs.mutable_data();
  {
    py::gil_scoped_release release;
    execute(plan, request, inputs, records, out);
  }
  py::dict counted;
  for (std::size_t g : overflows) counted[py::int_(g)] = lost[g];
  return py::make_tuple(outputs, fired, bits, sums, states, active, counted);
}

template <class T>
py::class_<Builder<T>> bind(py::module_& m, const char* builder, const char* plan) {
  using Made = Builder<T>;
  py::class_<Plan<T>, std::shared_ptr<Plan<T>>>(m, plan)
      .def("run", &run<T>, py::arg("inputs"), py::arg("steps"), py::kw_only(),
           py::arg("spikes") = py::none(), py::arg("currents") = 0, py::arg("membranes") = 0,
           py::arg("tile") = 0, py::arg("overflows") = std::vector<std::size_t>{})
      .def_property_readonly("isa", [](const Plan<T>& self) { return self.kernels->isa; });
  return py::class_<Made>(m, builder)
      .def(py::init<>())
      .def("__len__", &Made::size)
      .def("input",
           [](Made& self, const Axes& shape, double limit) {
             return self.input(shape_from(shape), limit);
           },
           py::arg("shape"), py::arg("limit") = 0.0)
      .def("relay",
           [](Made& self, const Axes& shape) {
             return self.group(Kind::relay, shape_from(shape), Neurons<T>{});
           },
           py::arg("shape"))
      .def("conv",
           [](Made& self, std::size_t source, std::size_t target, const py::array& weight,
              const std::optional<py::array>& bias, const Pair& stride, const Pair& padding,
              const Pair& dilation, std::size_t groups, std::size_t delay, int shift) {
             const View<T> kernel = view<T>(weight, "conv weight");
             if (kernel.shape.size() != 4) {
               throw std::invalid_argument("conv weight: expected 4 axes");
             }
             const std::optional<View<T>> extra = view<T>(bias, "conv bias");
             const Window window{{kernel.shape[2], kernel.shape[3]},
                                 {stride[0], stride[1]},
                                 {padding[0], padding[1]},
                                 {dilation[0], dilation[1]}};
             self.conv(source, target, kernel, extra ? &*extra : nullptr, window, groups, delay,
                       shift);
           },
           py::arg("source"), py::arg("target"), py::arg("weight"), py::arg("bias") = py::none(),
           py::kw_only(), py::arg("stride") = Pair{1, 1}, py::arg("padding") = Pair{0, 0},
           py::arg("dilation") = Pair{1, 1}, py::arg("groups") = 1, py::arg("delay") = 0,
           py::arg("shift") = 0)
      .def("dense",
           [](Made& self, std::size_t source, std::size_t target, const py::array& weight,
              const std::optional<py::array>& bias, std::size_t delay, int shift) {
             const std::optional<View<T>> extra = view<T>(bias, "dense bias");
             self.dense(source, target, view<T>(weight, "dense weight"),
                        extra ? &*extra : nullptr, delay, shift);
           },
           py::arg("source"), py::arg("target"), py::arg("weight"), py::arg("bias") = py::none(),
           py::kw_only(), py::arg("delay") = 0, py::arg("shift") = 0)
      .def("pool",
           [](Made& self, std::size_t source, std::size_t target, const Pair& kernel,
              const Pair& stride, const Pair& padding, bool mean, std::size_t delay) {
             const Window window{{kernel[0], kernel[1]},
                                 {stride[0], stride[1]},
                                 {padding[0], padding[1]},
                                 {1, 1}};
             self.pool(source, target, window, mean, delay);
           },
           py::arg("source"), py::arg("target"), py::kw_only(), py::arg("kernel"),
           py::arg("stride"), py::arg("padding") = Pair{0, 0}, py::arg("mean") = false,
           py::arg("delay") = 0)
      .def("identity",
           [](Made& self, std::size_t source, std::size_t target,
              const std::optional<py::array>& factor, std::size_t delay) {
             const std::optional<View<T>> times = view<T>(factor, "factor");
             self.identity(source, target, times ? &*times : nullptr, delay);
           },
           py::arg("source"), py::arg("target"), py::arg("factor") = py::none(), py::kw_only(),
           py::arg("delay") = 0)
      .def("build",
           [](Made& self, std::size_t output, const std::string& isa, const Loops& loops) {
             const Kernels& kernels = kernels_for(isa.c_str());
             return std::const_pointer_cast<Plan<T>>(self.build(output, loops, &kernels));
           },
           py::arg("output"), py::arg("isa") = "", py::arg("loops") = Loops{});
}

py::dict build_info() {
  py::dict info;
  info["compiler"] = __VERSION__;
  info["flags"] = SNNPIPE_FLAGS;
  info["isa"] = kernels_for("").isa;
  info["interface"] = kInterface;
  return info;
}

}  // namespace
}  // namespace snnpipe

PYBIND11_MODULE(_engine, m) {
  using namespace snnpipe;
  m.doc() = "Event-driven spiking networks: plans are built once and run on batches.";
  m.attr("INTERFACE") = kInterface;
  m.def("build_info", &build_info);
  bind<float>(m, "FloatBuilder", "FloatPlan")
      .def("spiking",
           [](Builder<float>& self, const Axes& axes, const py::array& decay,
              const py::array& threshold, const py::array& v_reset, const std::string& compare,
              const std::string& reset, const Arrays& driven, const Arrays& filtered) {
             const Shape shape = shape_from(axes);
             const FloatNeuron neuron{view<float>(decay, "decay"),
                                      firing(threshold, v_reset, compare, reset),
                                      views(driven, "driven"), views(filtered, "filtered")};
             return self.group(Kind::spiking, shape, float_neurons(shape, neuron));
           },
           py::arg("shape"), py::arg("decay"), py::arg("threshold"), py::arg("v_reset"),
           py::arg("compare"), py::arg("reset"), py::arg("driven") = py::none(),
           py::arg("filtered") = py::none())
      .def("leaky",
           [](Builder<float>& self, const Axes& axes, const py::array& decay, const Arrays& driven,
              const Arrays& filtered) {
             const Shape shape = shape_from(axes);
             const FloatNeuron neuron{view<float>(decay, "decay"), std::nullopt,
                                      views(driven, "driven"), views(filtered, "filtered")};
             return self.group(Kind::leaky, shape, float_neurons(shape, neuron));
           },
           py::arg("shape"), py::arg("decay"), py::arg("driven") = py::none(),
           py::arg("filtered") = py::none())
      .def("sum",
           [](Builder<float>& self, const Axes& axes) {
             return self.group(Kind::sum, shape_from(axes), Neurons<float>{});
           },
           py::arg("shape"));
  bind<int32_t>(m, "IntegerBuilder", "IntegerPlan")
      .def("spiking",
           [](Builder<int32_t>& self, const Axes& axes, const py::array& du, const py::array& dv,
              const py::array& threshold, const py::array& bias, const std::string& compare,
              const std::string& reset) {
             const Shape shape = shape_from(axes);
             if ((compare != "gt" && compare != "ge") ||
                 (reset != "value" && reset != "subtract")) {
               throw std::invalid_argument("compare is gt or ge, reset is value or subtract");
             }
             return self.group(
                 Kind::spiking, shape,
                 integer_neurons(shape, view<int32_t>(du, "du"), view<int32_t>(dv, "dv"),
                                 view<int32_t>(threshold, "threshold"),
                                 view<int32_t>(bias, "bias"), compare == "ge",
                                 reset == "subtract"));
           },
           py::arg("shape"), py::arg("du"), py::arg("dv"), py::arg("threshold"), py::arg("bias"),
           py::arg("compare") = "gt", py::arg("reset") = "value")
      .def("sum",
           [](Builder<int32_t>& self, const Axes& axes, const py::array& bias) {
             const Shape shape = shape_from(axes);
             return self.group(Kind::sum, shape,
                               integer_bias(shape, view<int32_t>(bias, "bias")));
           },
           py::arg("shape"), py::arg("bias"))
      .def("inject", &Builder<int32_t>::inject, py::arg("source"), py::arg("target"));
}
