// Objects of operators (KEDA, External Secrets) against the schemas of their own definitions.
// Standard input: a JSON list of objects. Standard output: a JSON list of what is wrong.
import { readFileSync } from "node:fs";
import { ExternalSecret } from "@kubernetes-models/external-secrets/external-secrets.io/v1/ExternalSecret";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";

const models = {
  "external-secrets.io/v1 ExternalSecret": ExternalSecret,
  "keda.sh/v1alpha1 ScaledObject": ScaledObject,
};
const wrong = [];
for (const one of JSON.parse(readFileSync(0, "utf-8"))) {
  const Model = models[`${one.apiVersion} ${one.kind}`];
  try {
    if (Model === undefined) throw new Error("nobody knows this kind");
    new Model(one).validate();
  } catch (error) {
    wrong.push(`${one.kind} ${one.metadata?.name}: ${error.message}`);
  }
}
console.log(JSON.stringify(wrong));
