//! The operations on a CPU: kernels over slices.

use std::ops::Range;

use candle_core::Result;
use lockstep_engine::spec::ModelSpec;
use lockstep_kernels::attention::{self, Forward, Shape};
use lockstep_kernels::head::{self, Gradients};
use lockstep_kernels::matmul::{Into, matmul};
use lockstep_kernels::rotary::{Rotary, Turn};
use lockstep_kernels::{Buffer, Matrix, MatrixMut, embedding, norm, swiglu};

use super::ops::{Attended, Ops};
use crate::batch::Batch;

/// Kernels, and the tables that they need.
pub(crate) struct Cpu {
    eps: f32,
    heads: usize,
    kv_heads: usize,
    width: usize,
    rotary: Rotary,
}

/// A matrix, row after row.
#[derive(Debug)]
pub(crate) struct Rows {
    values: Buffer,
    cols: usize,
}

impl Rows {
    fn rows(&self) -> usize {
        self.values.len() / self.cols
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.values, self.rows(), self.cols)
    }

    fn matrix_mut(&mut self) -> MatrixMut<'_> {
        let rows = self.rows();
        MatrixMut::new(&mut self.values, rows, self.cols)
    }
}

impl Cpu {
    pub(crate) fn new(spec: &ModelSpec) -> Self {
        let width = spec.hidden_size / spec.num_attention_heads;
        Self {
            eps: spec.rms_norm_eps as f32,
            heads: spec.num_attention_heads,
            kv_heads: spec.num_key_value_heads,
            width,
            rotary: Rotary::new(spec.max_position_embeddings, width, spec.rope_theta),
        }
    }

    fn shape(&self, batch: &Batch) -> Shape {
        Shape {
            sequences: batch.sequences(),
            length: batch.length(),
            heads: self.heads,
            kv_heads: self.kv_heads,
            width: self.width,
        }
    }
}

impl Ops for Cpu {
    type Array = Rows;
    type Weight<'w> = &'w [f32];

    fn array(&self, rows: usize, cols: usize) -> Result<Rows> {
        let values = Buffer::new(rows * cols);
        Ok(Rows { values, cols })
    }

    fn take(&mut self, _: &[f32]) -> Result<()> {
        Ok(()) // they are used where they are
    }

    fn weight<'w>(&'w self, weights: &'w [f32], at: Range<usize>, _: usize) -> Result<&'w [f32]> {
        Ok(&weights[at])
    }

    fn copy(&self, from: &Rows, to: &mut Rows) -> Result<()> {
        to.values.copy_from_slice(&from.values);
        Ok(())
    }

    fn clear(&self, x: &mut Rows) -> Result<()> {
        x.values.fill(0.0);
        Ok(())
    }

    fn embed(&self, batch: &Batch, table: &[f32], x: &mut Rows) -> Result<()> {
        embedding::embed(batch.input_ids(), table, &mut x.values);
        Ok(())
    }

    fn embed_backward(&self, batch: &Batch, dx: &Rows, dtable: &mut [f32]) -> Result<()> {
        embedding::embed_backward(batch.input_ids(), &dx.values, dtable);
        Ok(())
    }

    fn norm(&self, x: &Rows, w: &[f32], z: &mut Rows) -> Result<()> {
        norm::rms_norm(&x.values, w, self.eps, &mut z.values);
        Ok(())
    }

    fn norm_backward(&self, x: &Rows, w: &[f32], dz: &Rows, dx: &mut Rows, dw: &mut [f32]) -> Result<()> {
        norm::rms_norm_backward(&x.values, w, self.eps, &dz.values, &mut dx.values, dw);
        Ok(())
    }

    fn linear(&self, x: &Rows, w: &[f32], y: &mut Rows, into: Into) -> Result<()> {
        let w_oi = Matrix::new(w, y.cols, x.cols);
        matmul(x.matrix(), w_oi.t(), y.matrix_mut(), into);
        Ok(())
    }

    fn linear_input(&self, dy: &Rows, w: &[f32], dx: &mut Rows) -> Result<()> {
        let w_oi = Matrix::new(w, dy.cols, dx.cols);
        matmul(dy.matrix(), w_oi, dx.matrix_mut(), Into::Fresh);
        Ok(())
    }

    fn linear_weight(&self, dy: &Rows, x: &Rows, dw: &mut [f32]) -> Result<()> {
        let dw_oi = MatrixMut::new(dw, dy.cols, x.cols);
        matmul(dy.matrix().t(), x.matrix(), dw_oi, Into::Sum);
        Ok(())
    }

    fn turn(&self, batch: &Batch, qkv: &mut Rows, turn: Turn) -> Result<()> {
        let heads = self.heads + self.kv_heads;
        self.rotary
            .turn(&mut qkv.matrix_mut(), heads, batch.length(), turn);
        Ok(())
    }

    fn attention(&self, batch: &Batch, qkv: &Rows, y: &mut Rows, lse: &mut Rows) -> Result<()> {
        attention::attention(&qkv.values, self.shape(batch), &mut y.values, &mut lse.values);
        Ok(())
    }

    fn attention_backward(
        &self,
        batch: &Batch,
        (qkv, y, lse): Attended<'_, Rows>,
        dy: &Rows,
        dqkv: &mut Rows,
    ) -> Result<()> {
        let forward = Forward {
            qkv: &qkv.values,
            y: &y.values,
            lse: &lse.values,
        };
        attention::attention_backward(forward, self.shape(batch), &dy.values, &mut dqkv.values);
        Ok(())
    }

    fn swiglu(&self, gate_up: &Rows, a: &mut Rows) -> Result<()> {
        swiglu::swiglu(&gate_up.values, a.cols, &mut a.values);
        Ok(())
    }

    fn swiglu_backward(&self, gate_up: &mut Rows, da: &mut Rows) -> Result<()> {
        swiglu::swiglu_backward(&mut gate_up.values, da.cols, &mut da.values);
        Ok(())
    }

    fn cross_entropy(
        &self,
        batch: &Batch,
        h: &Rows,
        w: &[f32],
        gradients: Option<(&mut Rows, &mut [f32])>,
    ) -> Result<f64> {
        let scale = 1.0 / batch.tokens() as f32;
        let gradients = gradients.map(|(dh, dw)| Gradients {
            dh: &mut dh.values,
            dw,
            scale,
        });
        Ok(head::cross_entropy(
            &h.values,
            w,
            h.cols,
            batch.target_ids(),
            gradients,
        ))
    }
}
