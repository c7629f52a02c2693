/*
 * graph_xsa.h - attention and the XSA behind it as one operation (kern_attn_xsa) where what is
 * between them is half values. Whoever carries out the XSA then does nothing.
 *
 * The plan stays as it is: s has the place of what attention itself returns, which is not stored,
 * and do the place of its gradient. The backward of both is done at the attention: the gradient
 * of y has been given back then, and those of q and k, which come later, may have its place.
 */
#ifndef MODEL_GRAPH_XSA_H
#define MODEL_GRAPH_XSA_H

#include "model/graph.h"

/*
 * graph_xsa_fwd, graph_xsa_bwd - carry out both; false, and nothing done, where they are not
 * one.
 *
 *   n  an attention
 *   a  the arguments of attention alone, with the marks; for the backward with dq, dk and dv
 */
bool graph_xsa_fwd(struct graph *g, const struct graph_node *n, const struct kern_attn *a);
bool graph_xsa_bwd(struct graph *g, const struct graph_node *n, const struct kern_attn *a);

#endif
