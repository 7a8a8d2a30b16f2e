//! `y = x · wᵀ`.
//!
//! Candle's own backward makes the gradient of `wᵀ` and transposes it element by element; this one makes the
//! gradient of `w` at once.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, Tensor};

struct Linear;

/// `x` (n, in) and `w` (out, in) to (n, out).
pub(crate) fn linear(x_ni: &Tensor, w_oi: &Tensor) -> Result<Tensor> {
    x_ni.apply_op2(w_oi, Linear)
}

impl Linear {
    fn forward<S: BackendStorage>(s1: &S, l1: &Layout, s2: &S, l2: &Layout) -> Result<(S, Shape)> {
        let ((n, i), (o, _)) = (l1.shape().dims2()?, l2.shape().dims2()?);
        Ok((
            s1.matmul(s2, (1, n, o, i), l1, &l2.transpose(0, 1)?)?,
            (n, o).into(),
        ))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Self::forward(s1, l1, s2, l2)
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Self::forward(s1, l1, s2, l2)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (x, w) = (x.detach(), w.detach());
        Ok((Some(dy.matmul(&w)?), Some(dy.t()?.matmul(&x)?)))
    }
}
