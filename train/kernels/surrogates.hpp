// Surrogate derivatives h(x), x = u - threshold: unit area, peak 1 / width. As train/surrogates has
// them, one file each.

#pragma once

#include "vector.hpp"

namespace {

enum Surrogate { SIGMOID, TRIANGLE, RECTANGLE, ARCTAN, FAST_SIGMOID };
constexpr const char* SURROGATES[] = {"sigmoid", "triangle", "rectangle", "arctan",
                                      "fast_sigmoid"};

// Its numbers are made before the loops: the compiler may not take a division out of them.
template <class V, int SURROGATE>
struct Derivative {
    using F = typename V::F;
    float peak, alpha, square, half, width;
    INLINE explicit Derivative(float width)
        : peak(1.0f / width), alpha(4.0f / width), square(peak * peak), half(0.5f * width),
          width(width) {}
    INLINE F operator()(const F& x) const {
        if (SURROGATE == SIGMOID) {
            const F z = exp_negative<V>(magnitude<V>(x) * -alpha);
            const F one = z + 1.0f;
            return alpha * z / (one * one);
        }
        if (SURROGATE == TRIANGLE) {
            const F h = peak - magnitude<V>(x) * square;
            return keep<V>(h > 0.0f, h);
        }
        if (SURROGATE == RECTANGLE) return keep<V>(magnitude<V>(x) <= half, F{} + peak);
        if (SURROGATE == ARCTAN) {
            const F z = x * (3.14159265f * peak);
            return 1.0f / (width * (z * z + 1.0f));
        }
        const F z = magnitude<V>(x) * (2.0f * peak) + 1.0f;
        return peak / (z * z);
    }
};

}  // namespace
