{{- define "mailyard.name" -}}
{{- printf "%s" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "mailyard.labels" -}}
app.kubernetes.io/name: mailyard
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "mailyard.selector" -}}
app.kubernetes.io/name: mailyard
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "mailyard.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* What every container has: who it is, what it may, and its settings. */}}
{{- define "mailyard.container" -}}
image: {{ include "mailyard.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - configMapRef: {name: {{ include "mailyard.name" .root }}}
  - secretRef: {name: {{ .root.Values.secrets.existing }}}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
  {{- if eq .root.Values.scaling.by "mailyard" }}
  - {name: autoscale, mountPath: /etc/mailyard, readOnly: true}
  {{- end }}
{{- end -}}

{{- define "mailyard.pod" -}}
serviceAccountName: {{ include "mailyard.name" .root }}
automountServiceAccountToken: {{ and (eq .component "scheduler") (eq .root.Values.scaling.by "mailyard") }}
terminationGracePeriodSeconds: {{ .root.Values.terminationGraceSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "mailyard.selector" . | nindent 14 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "mailyard.selector" . | nindent 8 }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - {name: data, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
  {{- if eq .root.Values.scaling.by "mailyard" }}
  - {name: autoscale, configMap: {name: {{ include "mailyard.name" .root }}-autoscale}}
  {{- end }}
{{- end -}}

{{/* A Deployment of one role. `replicas` is left to whoever scales it after the first time. */}}
{{- define "mailyard.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "mailyard.name" .root }}-{{ .component }}
  labels: {{- include "mailyard.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  {{- if or (eq .component "scheduler") (eq .root.Values.scaling.by "none") .shard }}
  replicas: {{ .values.replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "mailyard.selector" . | nindent 6 }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  template:
    metadata:
      labels: {{- include "mailyard.selector" . | nindent 8 }}
      annotations:
        checksum/settings: {{ include (print .root.Template.BasePath "/settings.yaml") .root | sha256sum }}
        {{- if eq .role "api" }}
        {{- toYaml .root.Values.podAnnotations | nindent 8 }}
        {{- end }}
    spec: {{- include "mailyard.pod" . | nindent 6 }}
      containers:
        - name: {{ .role }}
          args: [{{ .role }}]
          {{- include "mailyard.container" . | nindent 10 }}
          {{- if not (has .role (list "api" "smtp")) }}
          env:
            - {name: MAILYARD_ALIVE_FILE, value: /tmp/alive}
            {{- with .shard }}
            - {name: MAILYARD_SHARD, value: {{ . }}}
            {{- end }}
            {{- with .values.lanes }}
            - {name: MAILYARD_WORKER_LANES, value: {{ join "," . | quote }}}
            {{- end }}
          {{- end }}
          resources: {{- toYaml (.values.resources | default dict) | nindent 12 }}
          {{- if eq .role "api" }}
          ports:
            - {name: http, containerPort: 8025}
          startupProbe:
            httpGet: {path: /health/live, port: http}
            periodSeconds: 2
            failureThreshold: 30
          livenessProbe:
            httpGet: {path: /health/live, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
          readinessProbe:
            httpGet: {path: /health/ready, port: http}
            periodSeconds: 5
            timeoutSeconds: 5
          lifecycle:
            preStop:  # until no balancer sends anything here
              exec: {command: [sleep, "5"]}
          {{- else if eq .role "smtp" }}
          ports:
            - {name: smtp, containerPort: 2525}
            - {name: submission, containerPort: 2587}
            - {name: submissions, containerPort: 2465}
          startupProbe:
            tcpSocket: {port: smtp}
            periodSeconds: 2
            failureThreshold: 30
          livenessProbe:
            tcpSocket: {port: smtp}
            periodSeconds: 20
          readinessProbe:
            tcpSocket: {port: smtp}
            periodSeconds: 5
          lifecycle:
            preStop:
              exec: {command: [sleep, "5"]}
          {{- else }}
          # No port to ask: the process touches a file for as long as its event loop turns.
          startupProbe:
            exec: {command: [test, -e, /tmp/alive]}
            periodSeconds: 2
            failureThreshold: 60
          livenessProbe:
            exec:
              command: [sh, -c, 'test -n "$(find /tmp/alive -newermt "60 seconds ago")"']
            periodSeconds: 20
            timeoutSeconds: 5
          {{- end }}
{{- end -}}

{{/* The Secret that the migrations read. */}}
{{- define "mailyard.migrationSecret" -}}
{{- if .Values.secrets.external.enabled -}}
{{ include "mailyard.name" . }}-migrate
{{- else -}}
{{ .Values.secrets.existing }}
{{- end -}}
{{- end -}}

{{/* What the External Secrets operator makes a Secret `name` of; with `hook` for the migrations. */}}
{{- define "mailyard.externalSecret" -}}
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata:
  name: {{ .name }}
  labels: {{- include "mailyard.labels" .root | nindent 4 }}
  {{- if .hook }}
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-weight: "-5"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
  {{- end }}
spec:
  refreshInterval: {{ .root.Values.secrets.external.refresh }}
  secretStoreRef: {{- toYaml .root.Values.secrets.external.store | nindent 4 }}
  target: {name: {{ .name }}}
  dataFrom:
    - extract: {key: {{ .root.Values.secrets.external.path }}}
{{- end -}}
